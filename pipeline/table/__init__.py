"""The Delta table of results: its columns, its commits, its views and its maintenance.

`fence` lets one run at a time write. `commit` appends rows, `query` reads them, and `maintain` compacts and deletes.
"""
