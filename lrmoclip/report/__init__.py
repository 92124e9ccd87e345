"""From the records of runs to tables, text and figures. Nothing here reads a model."""
