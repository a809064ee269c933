"""How fast, how flat in memory, how hard to kill and at what cost a zoo of models is scanned."""
