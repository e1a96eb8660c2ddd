"""Make the demo's model package: `python -m jobs.demo.train`. It takes about half an hour on two cores."""

from jobs.demo import PACKAGE, WIDTH
from jobs.demo.examples import DrawnExamples
from jobs.demo.pictures import CLASS_NAMES
from pipeline.cluster.connect import cluster
from pipeline.training.run import TrainingRun, begin, finish, train_from
from pipeline.training.settings import ClusterTraining
from pipeline.training.start import from_scratch

RUN_FOLDER = "demo-out/_runs/demo-shapes"
NUM_PICTURES = 20_000
HELD_OUT_SEED = 1_000_000
NUM_HELD_OUT = 500
SETTINGS = ClusterTraining(num_steps=1200, zoom_out_max=1, crop_min=1, vertical_flip=True)


def main() -> None:
    """Train, measure on pictures that training never drew, and write the package. Started again, it resumes."""
    data = f"jobs.demo.pictures, seeds 0 to {NUM_PICTURES - 1}"
    held_out = DrawnExamples(HELD_OUT_SEED, NUM_HELD_OUT)
    run = TrainingRun("demo-shapes", SETTINGS, RUN_FOLDER, {"data": data})
    provenance = {"command": "python -m jobs.demo.train", "data": data}
    begun = begin(from_scratch(WIDTH), CLASS_NAMES, run)
    with cluster(SETTINGS.address):
        package, _ = train_from(begun, DrawnExamples(0, NUM_PICTURES), held_out, run, provenance)
        measured_on = f"jobs.demo.pictures, {NUM_HELD_OUT} seeds from {HELD_OUT_SEED}"
        evaluation = finish(package, held_out, str(PACKAGE), measured_on)
    print(evaluation.metrics.summary())


if __name__ == "__main__":
    main()
