"""The layouts of labelled images as tools write them: one module per layout, and one function that tries them all."""
