"""What a person sees and types: options, tables, lines, JSON, signals, exit statuses.

`app` is the command line; it asks `library` for outcomes and shows them. It may not know how ClearML is
spoken to, nor decide what is sent. Rich and Typer are imported here and nowhere else.
"""
