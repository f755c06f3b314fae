"""From the best trial to a submission: fresh seeds, statistics, the folder, its verification."""
