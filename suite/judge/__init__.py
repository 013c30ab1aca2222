"""What is concluded: potential against potential, solution against solution, both against theory."""
