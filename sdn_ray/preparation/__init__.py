"""Images, teacher, features and captions: made once, and cached."""
