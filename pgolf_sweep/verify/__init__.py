"""The referee: does a folder pass the rules?"""
