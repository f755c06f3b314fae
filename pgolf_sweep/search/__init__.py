"""What is searched (`space`, `parameters`, `parse`) and who proposes (`study`)."""
