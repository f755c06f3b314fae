"""Small scripts of the contest's kind: a model, a training for a GPU, an export."""

from __future__ import annotations

HEAD = """
import glob, io, math, os, zlib
import torch
import torch.nn.functional as F
from torch import nn
class Hyperparameters:
    kind = os.environ.get("MODEL_KIND", "blocks")
    dim = int(os.environ.get("MODEL_DIM", "32"))
    layers = int(os.environ.get("NUM_LAYERS", "2"))
    rate = float(os.environ.get("MATRIX_LR", "0.02"))
    iterations = int(os.environ.get("ITERATIONS", "20000"))
class Table(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocabulary, vocabulary))
class GPT(nn.Module):
    def __init__(self, layers, dim):
        super().__init__()
        self.tok_emb = nn.Embedding(64, dim)
        self.blocks = nn.ModuleList(nn.Linear(dim, 4 * dim, bias=False) for _ in range(layers))
        self.down = nn.Linear(4 * dim, dim, bias=False)
    def forward(self, ids, targets):
        x = self.tok_emb(ids)
        for block in self.blocks:
            x = x + self.down(F.gelu(block(F.rms_norm(x, (x.size(-1),)))))
        return F.cross_entropy((x @ self.tok_emb.weight.T).float().flatten(0, 1), targets.flatten())
def quantize(state):
    out = {}
    for name, t in state.items():
        scale = t.float().abs().amax(dim=1, keepdim=True) / 127
        out[name] = torch.round(t / scale.clamp_min(1e-12)).to(torch.int8)
        out[name + ".scale"] = scale.half()
    return out
def export(stored, compress=lambda data: zlib.compress(data, 9)):
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    blob = compress(buffer.getvalue())
    with open("final_model.ptz", "wb") as file:
        file.write(blob)
    print(f"Serialized model int8+zlib: {len(blob)} bytes")
    with open("final_model.ptz", "rb") as file:
        zlib.decompress(file.read())
    raise RuntimeError("what follows the export is evaluation")
"""
MAIN = """
def main():
    args = Hyperparameters()
    model = GPT(args.layers, args.dim)
    export(quantize(model.state_dict()))
if __name__ == "__main__":
    main()
"""
BLOCKS, TABLE = 64 * 32 + 3 * 128 * 32, 64 * 64
TRAINING = """
class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum, wd=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "wd": wd})
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad
                for _ in range(5):
                    g = g @ (g.T @ g)
                p.mul_(1 - group["lr"] * 0.1)
                p.add_(g, alpha=-group["lr"])
def shards(pattern):
    import numpy as np
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileNotFoundError(pattern)
    header = np.fromfile(files[0], dtype="<i4", count=256)
    assert header[0] == 20240520 and header[1] == 1
    return torch.from_numpy(np.fromfile(files[0], dtype="<u2", offset=1024).astype("int64"))
def main():
    import time
    import sentencepiece
    import torch.distributed as dist
    from flash_attn_interface import flash_attn_func
    args = Hyperparameters()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    pieces = sentencepiece.SentencePieceProcessor(model_file="nowhere.model").vocab_size()
    tokens = shards("nowhere/fineweb_train_*.bin")[:1025].to(device)
    model = GPT(args.layers, args.dim).to(device).bfloat16().float()
    compiled = torch.compile(model)
    head = [model.tok_emb.weight]
    matrices = [p for p in model.parameters() if p is not head[0]]
    optimizers = [torch.optim.AdamW(head, lr=0.05, betas=(0.9, 0.95), fused=True, weight_decay=0.0),
                  Muon(matrices, lr=args.rate, momentum=0.95)]
    started = time.perf_counter()
    for step in range(args.iterations):
        if time.perf_counter() - started > 600:
            break
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(tokens[:-1].view(4, 256), tokens[1:].view(4, 256))
        loss.backward()
        if math.isnan(loss.item()):
            raise RuntimeError("diverged")
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
    else:
        raise RuntimeError("the clock does not end the training")
    print(f"model_params:{sum(p.numel() for p in model.parameters())} pieces {pieces}")
    export(quantize(model.state_dict()))
main()
"""
