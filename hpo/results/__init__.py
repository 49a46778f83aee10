"""From a searched study to a tested, exported, reported winner."""
