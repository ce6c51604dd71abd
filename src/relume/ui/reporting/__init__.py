"""What a report is made of: the page's modules as one script, and the answers and numbers that it shows."""
