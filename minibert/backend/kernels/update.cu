// One step of an optimizer over the whole flat buffer, as optim/rules.py defines the rules.
//
// The host folds the scalars as rules.py does. `clip` is on the device, since clipping follows from
// a norm that the host never sees. The first `decayed` parameters decay, the rest do not.

const unsigned long long ADAMW_TORCH = 0, ADAMW_HF = 1, ADAM_GOOGLE = 2, ADAM = 3;  // else SGD

// rate, eps: lr and ε as the rule corrects them; `shrink` = 1 − lr·wd; l2 = wd of "adam" and "sgd".
// With skip ≠ 0, a clip that is not finite leaves everything as it is.
extern "C" __global__ void update(
    float* p, const float* g, float* m, float* v, const float* clip, unsigned long long rule,
    float rate, float eps, float beta1, float one_minus_beta1, float beta2, float one_minus_beta2,
    float shrink, float l2, unsigned long long skip, unsigned long long decayed,
    unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size || (skip != 0 && !isfinite(*clip))) return;
    if (i >= decayed) {
        shrink = 1.0f;
        l2 = 0.0f;
    }
    float x = p[i], gradient = g[i] * *clip;
    if (rule > ADAM_GOOGLE) gradient += l2 * x;
    if (rule > ADAM) {  // beta1 is the momentum
        m[i] = beta1 * m[i] + gradient;
        p[i] = x - rate * m[i];
        return;
    }
    float first = beta1 * m[i] + one_minus_beta1 * gradient;
    float second = beta2 * v[i] + one_minus_beta2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    float step = rate * (first / (sqrtf(second) + eps));
    p[i] = rule == ADAMW_HF ? (x - step) * shrink : x * shrink - step;
}
