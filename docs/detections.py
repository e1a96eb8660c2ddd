"""A notebook over a table of detections: `marimo edit docs/detections.py -- --table demo-out/table`."""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt

    from pipeline.table.delta import ResultTable
    from pipeline.table.query import query

    table = ResultTable(mo.cli_args().get("table") or "demo-out/table")

    def ask(sql):
        """Answer one SELECT over the views of the table, as an Arrow table."""
        with query(table, sql) as relation:
            return relation.to_arrow_table()

    return ask, mo, plt


@app.cell
def _(mo):
    min_score = mo.ui.slider(0.05, 0.95, step=0.05, value=0.5, label="boxes from this score on")
    min_score
    return (min_score,)


@app.cell
def _(ask, min_score, plt):
    by_class = ask(
        f"SELECT label, count(*) AS boxes FROM detections WHERE score >= {min_score.value} GROUP BY label ORDER BY boxes"
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    left.barh(by_class["label"].to_pylist(), by_class["boxes"].to_pylist())
    left.set(title="Boxes by class", xlabel="boxes")
    scores = ask("SELECT score FROM detections")
    right.hist(scores["score"].to_numpy(), bins=40, log=True)
    right.axvline(min_score.value, color="black")
    right.set(title="Scores", xlabel="score", ylabel="boxes")
    figure
    return (by_class,)


@app.cell
def _(ask, min_score, plt):
    sizes = ask(
        f"""
        SELECT label, (xmax - xmin) / width_px AS width, (ymax - ymin) / height_px AS height
        FROM detections WHERE score >= {min_score.value} LIMIT 20_000
        """
    ).to_pandas()
    plot = plt.figure(figsize=(5, 4), layout="constrained").subplots()
    for label, boxes in sizes.groupby("label"):
        plot.scatter(boxes["width"], boxes["height"], s=4, label=label)
    plot.set(title="Sizes of boxes, in shares of the image", xlabel="width", ylabel="height")
    plot.legend(markerscale=3, fontsize="small")
    plot
    return (sizes,)


@app.cell
def _(ask, min_score, plt):
    from io import BytesIO

    from PIL import Image, ImageOps

    from pipeline.storage import store

    crowded = ask(
        "SELECT uri, detections FROM images WHERE num_detections > 0 ORDER BY max_score DESC, uri LIMIT 1"
    ).to_pylist()
    picture = plt.figure(figsize=(6, 6), layout="constrained").subplots()
    picture.set_axis_off()
    for row in crowded:
        picture.imshow(ImageOps.exif_transpose(Image.open(BytesIO(store.read(row["uri"])))))
        picture.set_title(row["uri"], fontsize="small")
        for box in row["detections"]:
            if box["score"] >= min_score.value:
                size = (box["xmax"] - box["xmin"], box["ymax"] - box["ymin"])
                picture.add_patch(plt.Rectangle((box["xmin"], box["ymin"]), *size, fill=False, color="red"))
                picture.text(box["xmin"], box["ymin"], box["label"], color="red")
    picture
    return (crowded,)


if __name__ == "__main__":
    app.run()
