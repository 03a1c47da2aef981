"""The service: HTTP → tokenise → queue → batch → engine → heads → response."""
