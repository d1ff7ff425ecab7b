"""What the callback of a release would have reported of a run: a `run.Run` becomes an `events.Plan`.

Pure: no disk, no clock, no server. What differs between releases is a row in `eras`, and never an ``if`` in
`rules`. It may not know what has been sent already, nor by which requests it reaches ClearML.
"""
