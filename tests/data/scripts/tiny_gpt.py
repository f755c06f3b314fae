"""A script in the contest's manner: knobs by environment, a model, a quantizer, a codec."""

import io
import os
import zlib

import torch
from torch import nn

try:
    from flash_attn_interface import flash_attn_func
except ImportError:
    flash_attn_func = None


class Hyperparameters:
    vocab_size = int(os.environ.get("VOCAB_SIZE", 256))
    num_layers = int(os.environ.get("NUM_LAYERS", 2))
    model_dim = int(os.environ.get("MODEL_DIM", 128))
    num_heads = int(os.environ.get("NUM_HEADS", 4))
    matrix_lr = float(os.environ.get("MATRIX_LR", 0.02))
    clip_sigmas = float(os.environ.get("CLIP_SIGMAS", 6.0))
    floor = float(os.environ.get("STEP_FLOOR", 0.0))


class Block(nn.Module):
    def __init__(self, dim, gain):
        super().__init__()
        self.attn = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Linear(dim, 4 * dim, bias=False)
        self.scale = nn.Parameter(torch.full((dim,), gain))


class GPT(nn.Module):
    def __init__(self, vocab_size, num_layers, model_dim, heads, gain):
        super().__init__()
        if model_dim % heads:
            raise ValueError("model_dim must be divisible by num_heads")
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.blocks = nn.ModuleList(Block(model_dim, gain) for _ in range(num_layers))


def quantize_state_dict_int6(state_dict, args):
    kept, codes, steps = {}, {}, {}
    for name, tensor in state_dict.items():
        if tensor.numel() <= 4096:
            kept[name] = tensor.half()
            continue
        step = args.clip_sigmas * tensor.float().std(dim=1, keepdim=True) / 31
        step = step.clamp_min(args.floor)
        codes[name] = (tensor / step).round().clamp(-31, 31).to(torch.int8)
        steps[name] = step.half()
    return {"codes": codes, "steps": steps, "kept": kept}


def main():
    args = Hyperparameters()
    gain = 1.0
    heads = args.num_heads
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    base_model = GPT(args.vocab_size, args.num_layers, args.model_dim, heads, gain).to(device)
    quantized = quantize_state_dict_int6(base_model.state_dict(), args)
    buffer = io.BytesIO()
    torch.save(quantized, buffer)
    print(len(zlib.compress(buffer.getvalue(), 9)))


if __name__ == "__main__":
    main()
