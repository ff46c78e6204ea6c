"""Which questions are trained on: how they are checked, scored and picked."""
