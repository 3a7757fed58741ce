"""Prune and Cluster in a training loop of one's own, with `tf.GradientTape` and a compiled step."""

import keras
import tensorflow as tf

import tfbig

BATCH, EPOCHS = 32, 8

data = tfbig.load_dataset("digits")
x_train, x_test, y_train, y_test = tfbig.split(data.x / 16, data.y, seed=0)
rows = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(len(x_train), seed=0).batch(BATCH)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10),
    ]
)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train(callbacks):
    """The loop: Keras's callback list says when epochs and batches begin and end, as `model.fit` would."""
    optimizer = keras.optimizers.Adam()
    listeners = keras.callbacks.CallbackList(callbacks, model=model, epochs=EPOCHS, steps=len(rows))
    listeners.on_train_begin()  # masks and shared values are put on here, so the step is compiled after it

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    for epoch in range(EPOCHS):
        listeners.on_epoch_begin(epoch)
        for batch, (x, y) in enumerate(rows):
            listeners.on_train_batch_begin(batch)
            loss = step(x, y)
            listeners.on_train_batch_end(batch, {"loss": loss})
        listeners.on_epoch_end(epoch)
    listeners.on_train_end()


train([])
train([tfbig.Prune(0.8)])
train([tfbig.Cluster(8)])  # the zeros stay

print(tfbig.sparsity(model))
print(tfbig.clusters(model))
print("accuracy", round(tfbig.evaluate(model, x_test, y_test)["accuracy"], 3))
