"""Read an image and create a table at an S3 server whose certificate has an authority of its own."""

from pipeline.images.read import read_version
from pipeline.storage import s3, store
from pipeline.table.delta import ResultTable

s3.filesystem().mkdir("bucket")
store.write("s3://bucket/a.jpg", b"a")
assert read_version("s3://bucket/a.jpg", "", 1).data == b"a"
table = ResultTable("s3://bucket/table")
table.create()
print(ResultTable(table.url).exists)
