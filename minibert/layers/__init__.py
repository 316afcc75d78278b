"""The mathematics: one file a layer, every backward directly under its forward.

Reading order: linear, activations, layer_norm, dropout, embeddings, attention,
multi_head_attention, feed_forward, add_norm, encoder_layer, pooler, classifier, losses.

Conventions, in every file:

- T tokens, H hidden, N heads, D = H/N head size, F feed-forward, V vocabulary, B sequences, K
  classes; sequences are packed one after the other, so activations are (T, H), without padding.
- A forward returns its result and a cache: the least that its backward needs.
- A backward takes dy, the gradient of the loss with respect to the forward's result, and returns
  one gradient for each array the forward took, in the same order.
- `L` in a derivation is the loss; dx stands for ∂L/∂x and has x's shape.
- All functions are pure, and work in float32, float64 and complex128.
"""
