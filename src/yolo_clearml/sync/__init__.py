"""What is pending, and when: plan minus ledger, one run at a time or many again and again.

`engine` is the loop of ``upload`` and of ``watch``; `agenda` and `triggers` decide which run a watch visits
next. Reports go to a `sinks.Sink`, and the ledger is written when it has acknowledged them. It may not know
which sink that is, nor import clearml or matplotlib; what a person sees is made of its `outcomes` alone.
"""
