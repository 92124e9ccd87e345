"""What a scale's jobs will take, before any is submitted; and how far such a plan is from what was
measured."""
