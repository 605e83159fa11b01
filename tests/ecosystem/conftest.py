"""The scripts here run in environments of their own, by `run`; pytest leaves them alone."""

collect_ignore_glob = ["*.py"]
