"""What the page asks, answered: functions of folders that give JSON and numbers, for the server and for the report alike."""
