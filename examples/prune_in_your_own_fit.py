"""The Prune callback in a bare Keras `model.fit`: no wrapper, no new compile."""

import keras

import tfbig

data = tfbig.load_dataset("digits")
x_train, x_test, y_train, y_test = tfbig.split(data.x / 16, data.y, seed=0)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, activation="relu", padding="same"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, epochs=8, verbose=0)

prune = tfbig.Prune(0.75, layers=[keras.layers.Conv2D, "dense*"])
model.fit(x_train, y_train, epochs=8, callbacks=[prune], verbose=0)

print(prune.report)
print("accuracy", round(model.evaluate(x_test, y_test, verbose=0)[1], 3))
