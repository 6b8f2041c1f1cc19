"""Evaluate a finished run's networks again."""



