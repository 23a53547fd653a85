"""What a training and a prediction will take: measured on the device that is here, or calculated for a card.

``job.run`` is what ``kit plan`` calls; the process that it starts is ``python -m kitlib.forecast``. It alone
imports torch.
"""
