"""What of Prefect's `utilities` do programs import? The marks around arguments."""
