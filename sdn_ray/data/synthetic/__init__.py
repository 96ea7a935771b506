"""The embedded data set: species, drawing, captions."""
