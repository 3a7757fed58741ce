"""The same line of `tfbig.fit` under Ray Train, which starts the workers and sets TF_CONFIG in each.

pip install "ray[train]" and python ray_train.py; not run by tfbig's tests, which have no Ray.
"""

import argparse


def train(settings):
    """What each worker does; imported in it, so that TensorFlow starts after TF_CONFIG is set."""
    import keras
    from ray import train as ray_train

    import tfbig

    tfbig.strategy()
    data = tfbig.load_dataset("digits")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10),
        ]
    )
    run = tfbig.fit(
        model,
        data.x / 16,
        data.y,
        epochs=settings["epochs"],
        seed=0,
        checkpoint_dir=settings["folder"],
        verbose=0,
    )
    ray_train.report({name: float(series[-1]) for name, series in run.history.items()})


def main():
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default="/shared/digits", help="a folder that all workers see")
    arguments = parser.parse_args()
    trainer = TensorflowTrainer(
        train,
        train_loop_config={"epochs": 8, "folder": arguments.folder},
        scaling_config=ScalingConfig(num_workers=arguments.workers, use_gpu=False),
        # A lost worker is an error in the others; Ray starts all again, and tfbig goes on from the checkpoint.
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    )
    print(trainer.fit().metrics)


if __name__ == "__main__":
    main()
