"""What ``ray job submit --working-dir . -- python -m jobs.study STUDY.yaml [--set A.B=VALUE ...]`` runs."""

import sys

from activelr_service.cli import main

if __name__ == "__main__":
    main(["study", *sys.argv[1:]])
