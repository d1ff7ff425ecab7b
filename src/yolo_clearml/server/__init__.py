"""How ClearML is reported to: tasks, events and files, all of it read back; and offline sessions.

From the bottom: one request and its reply (`exchange`), the login (`session`), the API, file servers and
storages, whose a task is and what it holds, tasks, deliveries; `sink` and `offline` are what the rest of the
program sees. Only `session`, `api`, `file_server` and `storage` import the SDK. It may not know the rules of
a release, nor that there is a terminal.
"""
