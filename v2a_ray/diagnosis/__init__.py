"""Why a method worked: the labels that no learner reads, and the simulator, held against what each stage computed.

No Ray here, and nothing here moves a result.
"""
