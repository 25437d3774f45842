"""What a built package says about itself: its manifest and its model card.

This room stands left of ``deploy`` and ``runtime``: the manifest is the contract between the two.
"""
