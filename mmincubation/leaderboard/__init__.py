"""Collect the results of runs into a leaderboard."""
