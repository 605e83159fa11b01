"""What moves an answer, through which parts, and how the task is laid out in the weights."""
