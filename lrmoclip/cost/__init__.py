"""What training costs: FLOPs, timings, charges; and what it will need."""
