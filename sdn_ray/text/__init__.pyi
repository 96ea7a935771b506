"""What a script needs of this room."""

from .char_cnn_rnn import CharCnnRnn as CharCnnRnn
from .encoders import read_text_encoder as read_text_encoder
from .words import WordEncoder as WordEncoder
from .words import count_words as count_words
