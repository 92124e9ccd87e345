"""Records, batches, the judge of SQL; the micro world and published sets."""
