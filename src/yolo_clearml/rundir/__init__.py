"""What a run directory holds: an untrusted save_dir, read without executing or changing anything.

From folders to runs (`finding`), from files to values (`results_csv`, `arguments`, `checkpoint`), from all of
these to one `run.Run` (`scan`). It knows what Ultralytics, YOLOv5 and their forks write, and when; it may not
know that there is a callback, a ledger or ClearML.
"""
