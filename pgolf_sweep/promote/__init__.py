"""From the best trials to a submission: seeds, race, pack, folder."""
