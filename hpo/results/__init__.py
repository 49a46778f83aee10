"""From a searched study to a tested, exported, reported winner.

finalize (re-evaluate → retrain → open the test part once) ─► metrics
    ├─► export   a folder that rebuilds the winner
    └─► report   one HTML file, drawn by figures
"""
