"""Golden traces: everything that one step of a BERT computes, named, explained and written down.

Reading order: setup (what is run), record (how it is observed), taking (a tensor out of its call),
catalogue (the name and formula of every tensor), formulas (in the words of one pass), training (the
update rules), tensors (all of it in order), format (the two files), labels (of texts that have
none), standard (the traces that everybody can make), ordered (bytes that are the same on every
machine).
"""
