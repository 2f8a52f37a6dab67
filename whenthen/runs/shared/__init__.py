"""What do runs share? Variables that the server keeps, what runs have to show, and named limits that are counted among all of them."""
