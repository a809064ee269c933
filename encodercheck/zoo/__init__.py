"""Many models at once: which they are, what is known of them, who scans them, and where it goes."""
