"""What tests are made of: files, models, questions and settings that more than one test module asks for."""
