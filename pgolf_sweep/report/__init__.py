"""Studies as people read them: frames, tables, summaries."""
