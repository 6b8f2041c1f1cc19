"""Studies: many students of one teacher, trained once each, compared with their uncertainty."""
