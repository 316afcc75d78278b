"""The mathematics: one file a layer, every backward directly under its forward.

Reading order: linear, activations, layer_norm, dropout, embeddings, softmax, attention, select,
multi_head_attention, feed_forward, add_norm, encoder_layer, pooler, classifier, losses; then the
other heads: masked_lm_head, span_loss, pooling, normalize, pair_losses.

Conventions, in every file:

- T tokens, H hidden, N heads, D = H/N head size, F feed-forward, V vocabulary, P positions, B
  sequences, K classes, R rows of any kind; sequences are packed one after the other, so activations
  are (T, H), without padding.
- `xp` is the array module, `minibert.backend.get_backend("numpy")` or `"cupy"`. `@twinned` lets it
  put a faster function of the same name in the place of this one: read past it.
- A forward returns its result and a cache: the least that its backward needs.
- A backward takes dy, the gradient of the loss with respect to the forward's result, and returns
  one gradient for each array the forward took, in the same order; ids and labels have none.
- `L` in a derivation is the loss; dx stands for ∂L/∂x and has x's shape.
- All functions are pure, and work in float32, float64 and complex128.
"""
